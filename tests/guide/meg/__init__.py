import berg.models.meg.listing  # noqa: F401  # as the guide says; the registry would find the modules alone
