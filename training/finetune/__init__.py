"""A language model taught by examples: a LoRA adapter over the very GGUF file that is served, learned in plain torch.

Rows become tokens by the model's own chat template and llama.cpp's tokenizer, a llama of torch computes over the
dequantized weights, and what was learned is written as GGUF and proved by llama.cpp. Needs the extra `language`.
Nothing here knows jobs, keys or the network.
"""
