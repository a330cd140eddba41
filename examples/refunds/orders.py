"""The orders of a shop, and their refunds. In your agent this is the client of a shop and of a payment service."""

from dataclasses import dataclass, field
from typing import Any


class OrderNotFound(Exception):
    """There is no order of this number."""


@dataclass
class Orders:
    """Orders by their numbers. They are in memory, so a restart forgets refunds."""

    items: dict[int, tuple[str, int]] = field(
        default_factory=lambda: {17: ("teapot", 25), 18: ("kettle", 40), 19: ("mug", 12), 20: ("tray", 9)}
    )
    refunds: dict[str, int] = field(default_factory=dict)

    def find(self, number: int) -> dict[str, Any]:
        """Return an order. Raises `OrderNotFound`."""
        if number not in self.items:
            raise OrderNotFound(f"there is no order {number}")
        item, price = self.items[number]
        return {"number": number, "item": item, "price": price, "refunded": number in self.refunds.values()}

    def refund(self, number: int, idempotency_key: str) -> dict[str, Any]:
        """Refund an order, once for each key. Returns the receipt. Raises `OrderNotFound`."""
        order = self.find(number)
        self.refunds.setdefault(idempotency_key, number)
        return {"receipt": f"R-{number}", "amount": order["price"]}


ORDERS = Orders()
