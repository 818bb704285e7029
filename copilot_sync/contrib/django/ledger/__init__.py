"""The ledger of a Django site: each call is a row of its database, and the admin shows them.

    INSTALLED_APPS = [..., "copilot_sync.contrib.django", "copilot_sync.contrib.django.ledger"]

It is an application of its own, so that a site that does not install it gets no table. Once it is installed, the site's
client notes its calls here, unless ``COPILOT_SYNC["LEDGER"]`` says otherwise.
"""

from copilot_sync.contrib.django.ledger.recorder import DjangoLedger

__all__ = ["DjangoLedger"]
