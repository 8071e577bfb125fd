"""Model classes written by hand for this modality (docs: adding a model)."""
