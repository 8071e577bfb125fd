"""Classes as users had them before the guide: each takes what it likes, in its own order."""

from berg.core.model_registry import register_model
from berg.interfaces.base_model import BaseModelInterface

register_model("meg-older-instance", __name__, "MetadataOfInstance", "meg", "older", None)
register_model("meg-older-class", __name__, "MetadataOfClass", "meg", "older")
register_model("meg-older-late", __name__, "DeviceWhenLoaded", "meg", "older")


class MetadataOfInstance(BaseModelInterface):
    def __init__(self, subject, device, selection, berg_dir):
        self.given = (subject, device, selection, berg_dir)
        print("made")

    def load_model(self, device):
        print("loaded on", device)

    def generate_response(self, stimulus, show_progress=True):
        return [self.given, show_progress]

    def get_metadata(self):
        return {"given": self.given}

    @classmethod
    def get_model_id(cls):
        return "meg-older-instance"

    def cleanup(self):
        print("cleaned up")


class MetadataOfClass(BaseModelInterface):
    """No `model_instance`; extras of `generate_response` that have no default."""

    def __init__(self, berg_dir, selection, device, subject):
        self.berg_dir, self.selection, self.device, self.subject = berg_dir, selection, device, subject
        self.roi = selection["roi"]

    def load_model(self):
        pass

    def generate_response(self, images, batch_size, show_progress=True, *extras):
        return [len(images), batch_size, show_progress, extras]

    @classmethod
    def get_metadata(cls, berg_dir=None, subject=None, roi=None):
        return {"berg_dir": berg_dir, "subject": subject, "roi": roi}

    @classmethod
    def get_model_id(cls):
        return "meg-older-class"

    def cleanup(self):
        pass


class DeviceWhenLoaded(MetadataOfClass):
    """Neither device nor BERG directory when it is made; metadata without a directory."""

    def __init__(self, subject):
        self.subject = subject

    def load_model(self, device="auto", berg_dir=None):
        self.loaded = (device, berg_dir)

    def generate_response(self, images):
        return self.loaded

    @classmethod
    def get_metadata(cls, subject):
        return {"subject": subject}

    @classmethod
    def get_model_id(cls):
        return "meg-older-late"
