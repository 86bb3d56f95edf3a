"""The face of `/v1`, as the unmodified `openai` SDK calls it: its requests, answers, streams and errors.

Requests: chat.py, completions.py, embeddings.py, responses.py, each a model that becomes an engine's Generate.
Answers: answers.py and chunks.py, events.py for the stream of `/v1/responses`, resources.py for files and jobs.
"""
