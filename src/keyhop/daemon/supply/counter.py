"""Where all doors get keys: the masters' side and the slaves' side over one driver, with what both count."""

from __future__ import annotations

from keyhop.core.model import RequestError
from keyhop.daemon.audit import AuditLog
from keyhop.daemon.driver import Driver
from keyhop.daemon.supply.masters import Masters
from keyhop.daemon.supply.seals import Seals
from keyhop.daemon.supply.slaves import Slaves
from keyhop.daemon.supply.tallies import Tallies
from keyhop.wire.etsi014 import Status


class Counter:
    def __init__(self, driver: Driver, audit: AuditLog | None, *, kme_ids: dict[str, str] | None = None) -> None:
        """`kme_ids`: node to the KME ID that answers carry; a node that is not in it is named as it is."""
        self._node = driver.node
        self._own = driver.node.context.node
        self._kme_ids = kme_ids or {}
        self._tallies = tallies = Tallies(driver.node.supply.applications)
        self.seals = Seals(driver.node.context, driver.vault)
        self._masters = Masters(driver, audit, self.seals, tallies)
        self._slaves = Slaves(driver, audit, self.seals, tallies)
        # The methods themselves: a call less for each key.
        self.enc_keys = self._masters.enc_keys
        self.dec_keys = self._slaves.dec_keys
        self.tallies = tallies.by_application
        self.refused = tallies.refused
        self.on_delivered = tallies.on_delivered
        self.on_refused = tallies.on_refused

    def __repr__(self) -> str:
        return f"Counter({self._masters!r}, {self._slaves!r})"

    def close(self) -> None:
        """Overwrites what was given out and is still in memory."""
        self._masters.close()

    def status(self, caller: str, slave: str) -> Status:
        """Raises RequestError."""
        settings = self._node.context.settings
        try:
            node, stored, ceiling = self._node.supply.count_available(caller, slave)
        except RequestError as error:
            self._tallies.refuse("enc", caller, slave, error)
            raise
        governed = self._node.supply.governed
        terms = governed.terms(caller, slave) if governed.enforces else None
        return Status(
            source_KME_ID=self._kme_id(self._own),
            target_KME_ID=self._kme_id(node),
            master_SAE_ID=caller,
            slave_SAE_ID=slave,
            key_size=settings.default_key_bits if terms is None else terms.key_size_bits,
            stored_key_count=stored,
            max_key_count=ceiling,
            max_key_per_request=settings.keys_per_request,
            max_key_size=settings.max_key_bits if terms is None else terms.max_key_size_bits,
            min_key_size=settings.min_key_bits if terms is None else terms.min_key_size_bits,
            max_SAE_ID_count=0,
        )

    def _kme_id(self, node: str) -> str:
        return self._kme_ids.get(node, node)
