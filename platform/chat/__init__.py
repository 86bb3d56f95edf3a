"""Chat templates: a conversation becomes the text that a language model reads. The door; a leaf.

The template comes with a tenant's model and is hostile; so may the messages be. Whatever they are, construction and
rendering end soon, in bounded memory, in a text or in a TemplateRefused. Ordinary templates come out as Hugging Face's
`apply_chat_template` has them. Knows no tokens, no model, no HTTP.
"""

from chat.errors import TemplateRefused
from chat.marks import Marks
from chat.rendering import Limits
from chat.template import Template

__all__ = ["Limits", "Marks", "Template", "TemplateRefused"]
