"""The documents of OpenAI's API, as the unmodified `openai` SDK writes and reads them: requests, answers, errors.

Requests: chat.py, completions.py, embeddings.py, responses.py, each a model that becomes an engine's Generate.
Answers: answers.py and chunks.py, events.py for the stream of `/v1/responses`, resources.py for files and jobs.
No HTTP, no tenant and no event loop: edge/openai/ has the endpoints, jobs/ the batches.
"""
