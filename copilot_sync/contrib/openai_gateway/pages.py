"""Pages of lists, as OpenAI's API has them. Pure."""

from typing import Any, Dict, List, NamedTuple, Optional
from urllib.parse import parse_qsl

from copilot_sync.openai_api.chat_request import wrong_type
from copilot_sync.openai_api.failures import ApiError

#: Digits of a number in a query.
_LONGEST_NUMBER = 10


def values_of(query: str) -> Dict[str, str]:
    """Return the values of a query; of several under one name the last."""
    return dict(parse_qsl(query, keep_blank_values=True))


class PageQuery(NamedTuple):
    """Which part of a list is wanted.

    Attributes:
        is_ascending: Whether the first item comes first.
        after: The id of the item before the page; ``None`` for the beginning.
        limit: How many items.
    """

    is_ascending: bool
    after: Optional[str]
    limit: int

    @classmethod
    def from_values(cls, values: Dict[str, str], *, usual: int, most: int) -> "PageQuery":
        """Read the values of a query.

        Args:
            values: As above.
            usual: How many items a page has if the query does not say it.
            most: How many it may have.

        Raises:
            ApiError: They make no sense (400).
        """
        limit = values.get("limit", str(usual))
        if not (limit.isascii() and limit.isdigit() and len(limit) < _LONGEST_NUMBER):
            raise wrong_type("limit", "a number")
        order = values.get("order", "desc")
        if order not in ("asc", "desc"):
            raise ApiError(400, "order must be asc or desc", code="invalid_value", param="order")
        if not 1 <= int(limit) <= most:
            raise ApiError(400, f"limit must be from 1 to {most}", code="invalid_value", param="limit")
        return cls(order == "asc", values.get("after"), int(limit))

    def page_of(self, items: List[Dict[str, Any]]) -> Dict[str, Any]:
        """Return this page of a list of items, the first of which comes first.

        Raises:
            ApiError: ``after`` is none of them (400).
        """
        ordered = items if self.is_ascending else items[::-1]
        names = [item["id"] for item in ordered]
        if self.after is not None and self.after not in names:
            raise ApiError(400, "after must be the id of an item of this list", code="invalid_value", param="after")
        begin = 0 if self.after is None else names.index(self.after) + 1
        data = ordered[begin : begin + self.limit]
        return {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": begin + self.limit < len(ordered),
        }
