"""The endpoints of `/v1`, as the unmodified `openai` SDK calls them; what they read and write is in openai/."""
