"""The one way a chat template fails: refused, with a stable code, what is wrong with what, and the remedy."""

LONGEST_MESSAGE = 300


class TemplateRefused(Exception):
    """`code` is one of:

    template_too_large          more source, nodes or name than a template may have
    template_invalid            no Jinja: a syntax error, with its line
    template_forbidden          a statement, operator, filter, test, attribute or call that is not allowed
    template_too_slow           one rendering would take more steps than it may
    template_output_too_large   the prompt, or a value on the way to it, would be too long
    template_raised             the template itself called raise_exception
    template_failed             an undefined variable or a value of the wrong type, used in a way that fails
    messages_invalid            the messages or tools are no JSON, or nested too deeply
    """

    def __init__(self, code: str, message: str, hint: str) -> None:
        message = message if len(message) <= LONGEST_MESSAGE else message[: LONGEST_MESSAGE - 1] + "…"
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint


def too_large(message: str, hint: str) -> TemplateRefused:
    return TemplateRefused("template_too_large", message, hint)


def invalid(message: str) -> TemplateRefused:
    return TemplateRefused("template_invalid", message, "correct the Jinja source of the chat template")


def forbidden(what: str, line: int, instead: str) -> TemplateRefused:
    return TemplateRefused("template_forbidden", f"line {line}: {what} is not allowed in a chat template", instead)


def too_slow(message: str = "rendering takes more steps than a chat template may") -> TemplateRefused:
    return TemplateRefused("template_too_slow", message, "use fewer or smaller loops, fewer macro calls or messages")


def output_too_large(message: str) -> TemplateRefused:
    return TemplateRefused("template_output_too_large", message, "send shorter messages, or build less in the template")


def raised(message: str) -> TemplateRefused:
    return TemplateRefused(
        "template_raised", message, "send messages in the roles and the order that this model expects"
    )


def failed(message: str) -> TemplateRefused:
    return TemplateRefused("template_failed", message, "correct the chat template, or send the fields that it reads")


def messages_invalid(message: str) -> TemplateRefused:
    return TemplateRefused(
        "messages_invalid", message, "send JSON: objects with text keys, lists, text, numbers, booleans"
    )
