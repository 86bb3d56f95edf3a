"""Language models on the learning side: GGUF files and Hugging Face folders taken in, checked, tried, written again.

Everything that needs the extra `language` (llama-cpp-python, tokenizers) is imported where it is used: the rest of
training works without it. Nothing here knows jobs, keys or the network.
"""
