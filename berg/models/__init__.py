"""The encoding models: `EncodingModel`, the families, and a folder for each modality.

Modules in the folders ``fmri``, ``eeg``, ``ephys`` (or a new one) are found and imported by the registry;
nothing needs to be added here.
"""
