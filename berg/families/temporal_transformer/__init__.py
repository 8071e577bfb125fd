"""A transformer over volumes on the hidden states of a language model."""
