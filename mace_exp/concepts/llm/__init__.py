"""Training prompts from a language model: instructions, endpoints, parsing of the answers."""
