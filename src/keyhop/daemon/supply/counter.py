"""Where a door gets keys: the masters' side and the slaves' side over one driver, with what all doors count."""

from __future__ import annotations

from keyhop.core.model import RequestError
from keyhop.daemon.audit import AuditLog
from keyhop.daemon.driver import Driver
from keyhop.daemon.supply.masters import Masters
from keyhop.daemon.supply.seals import Seals
from keyhop.daemon.supply.slaves import Slaves
from keyhop.daemon.supply.tallies import ETSI014, Tallies
from keyhop.wire.etsi014 import Status


class Counter:
    def __init__(
        self,
        driver: Driver,
        audit: AuditLog | None,
        *,
        kme_ids: dict[str, str] | None = None,
        interface: str = ETSI014,
        beside: Counter | None = None,
    ) -> None:
        """`kme_ids`: node to the KME ID that answers carry; a node that is not in it is named as it is.

        `interface`: how records name this door. `beside`: the counter of another door of this node.
        """
        self._driver, self._audit = driver, audit
        self._node = driver.node
        self._own = driver.node.context.node
        self._kme_ids = kme_ids or {}
        self._tallies: Tallies = beside._tallies if beside else Tallies(driver.node.supply.applications)
        self.seals: Seals = beside.seals if beside else Seals(driver.node.context, driver.vault)
        tallies = self._tallies
        self._masters = Masters(driver, audit, self.seals, tallies, interface)
        self._slaves = Slaves(driver, audit, self.seals, tallies, interface)
        # The methods themselves: a call less for each key.
        self.enc_keys = self._masters.enc_keys
        self.dec_keys = self._slaves.dec_keys
        self.tallies = tallies.by_application
        self.keys = tallies.keys
        self.bytes = tallies.bytes
        self.refused = tallies.refused
        self.on_delivered = tallies.on_delivered
        self.on_refused = tallies.on_refused

    def __repr__(self) -> str:
        return f"Counter({self._masters!r}, {self._slaves!r})"

    def at_door(self, interface: str) -> Counter:
        """For another door: what is given there bears its name, and is counted with all the rest."""
        return Counter(self._driver, self._audit, kme_ids=self._kme_ids, interface=interface, beside=self)

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
