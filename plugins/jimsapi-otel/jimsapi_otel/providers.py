"""The providers of models, by the names that the semantic conventions for generative AI have for them."""

from jimsapi_otel.instruments import OTHER

_BY_PREFIX = {
    "anthropic": "anthropic",
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "gemini": "gcp.gemini",
    "google-gla": "gcp.gemini",
    "google-vertex": "gcp.vertex_ai",
    "groq": "groq",
    "grok": "x_ai",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "moonshot": "moonshot_ai",
    "openai": "openai",
    "perplexity": "perplexity",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "x-ai": "x_ai",
    "xai": "x_ai",
}
"""By what stands before the model: LiteLLM and OpenRouter write `openai/gpt-5`, and Pydantic AI `openai:gpt-5`."""

_BY_FAMILY = (
    (("gpt-", "chatgpt-", "o1", "o3", "o4", "text-embedding-"), "openai"),
    (("claude",), "anthropic"),
    (("gemini",), "gcp.gen_ai"),
    (("mistral", "mixtral", "codestral", "magistral"), "mistral_ai"),
    (("command",), "cohere"),
    (("deepseek",), "deepseek"),
    (("grok",), "x_ai"),
    (("kimi",), "moonshot_ai"),
    (("sonar",), "perplexity"),
)


def provider_of(model: str) -> str:
    """Return the provider of a model, as well as its name shows it. It is `_OTHER` if the name does not."""
    name = model.lower()
    for separator in ("/", ":"):
        prefix, found, rest = name.partition(separator)
        if found and rest and prefix in _BY_PREFIX:
            return _BY_PREFIX[prefix]
    for beginnings, provider in _BY_FAMILY:
        if name.startswith(beginnings):
            return provider
    return OTHER
