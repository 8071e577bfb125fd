from berg.testing import check_model


def test_the_model_keeps_what_every_model_promises():
    check_model("eeg-example-grid", raise_failures=True)
