"""OpenAI's endpoints, as OpenAI and the many compatible servers speak them."""
