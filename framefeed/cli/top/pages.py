"""Reads metrics pages all at once, each with a time limit: those that are given, and those that these lead to.

It knows where pages are and no more of what they say.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from urllib.parse import urlsplit

from framefeed.cli.http_page import check_url, get_page
from framefeed.cli.targets import find_targets
from framefeed.cli.top.measure import Snapshot, server_pages
from framefeed.cli.top.metrics_page import MAX_PAGE_BYTES, Page, parse_page
from framefeed.errors import BadInput, FramefeedError
from framefeed.page_place import is_here, page_place
from framefeed.show_value import one_line

MOST_PAGES = 512
_AT_ONCE = 16


def metrics_url(place: str) -> str:
    """The page at http://HOST:PORT/PATH, /metrics without a path; HOST:PORT will do. Raises BadInput for another."""
    url = place if "://" in place else f"http://{place}"
    check_url(url)
    return url if urlsplit(url).path not in ("", "/") else f"{url.rstrip('/')}/metrics"


class Pages:
    """The pages to read: those given, those of the servers in a registry, and of those that a trainer's page names."""

    def __init__(self, places: Sequence[str], *, registry: Path | None, limit_s: float) -> None:
        """Raises BadInput for what is no page, no registry, or nothing."""
        if not places and registry is None:
            raise BadInput("wanted the metrics page of a trainer, such as 127.0.0.1:9600, or --registry of servers")
        self._urls = list(dict.fromkeys(metrics_url(place) for place in places))
        self._registry, self._limit_s = registry, limit_s
        if registry is not None:
            find_targets(registry)
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="page")
        self._asked: dict[str, Future[Page]] = {}
        self._named: dict[str, list[str]] = {}  # servers' pages, by the trainer's page that named them last

    def close(self) -> None:
        """Read no more; what is being read ends by its limit. Idempotent."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def look(self) -> Snapshot:
        """All pages now. Blocks until they are read, for at most twice the limit for each 16 of them; one that is not
        read by then (a name that is not looked up) is silent, and not asked again before that has ended.
        """
        given, troubles = self._all_urls()
        pages = self._read_all(given[:MOST_PAGES])
        for page in pages:
            if not page.trouble:
                self._named[page.url] = led_to(page)
        named = [url for urls in self._named.values() for url in urls]
        more = list(dict.fromkeys(url for url in named if url not in given))
        pages += self._read_all(more[: MOST_PAGES - len(pages)])
        left_out = len(given) + len(more) - len(pages)
        if left_out:
            troubles.append((f"{left_out} pages more", f"are not read: at most {MOST_PAGES} are"))
        now_s = time.monotonic()
        return Snapshot(pages=(*pages, *(Page(url=what, at_s=now_s, trouble=why) for what, why in troubles)))

    def _read_all(self, urls: Sequence[str]) -> list[Page]:
        for url in urls:
            if url not in self._asked:
                self._asked[url] = self._pool.submit(self._read, url)
        rounds = -(-len(urls) // _AT_ONCE)
        done, _ = wait(self._asked.values(), timeout=2 * self._limit_s * rounds)
        pages, now_s = [], time.monotonic()
        for url in urls:
            if self._asked[url] in done:
                pages.append(self._asked.pop(url).result(timeout=0))
            else:
                pages.append(Page(url=url, at_s=now_s, trouble=f"does not answer within {self._limit_s:g} s"))
        self._asked = {url: asked for url, asked in self._asked.items() if not asked.done()}
        return pages

    def _all_urls(self) -> tuple[list[str], list[tuple[str, str]]]:
        urls, troubles = list(self._urls), []
        if self._registry is not None:
            try:
                found, doubts = find_targets(self._registry)
            except (BadInput, OSError) as error:
                found, doubts = [], {str(self._registry): str(error)}
            troubles += [(one_line(name), one_line(why)) for name, why in doubts.items()]
            urls += [metrics_url(place) for place in found]
        return list(dict.fromkeys(urls)), troubles[:MOST_PAGES]

    def _read(self, url: str) -> Page:
        try:
            status, body = get_page(url, limit_s=self._limit_s, most_bytes=MAX_PAGE_BYTES + 1)
        except FramefeedError as error:
            return Page(url=url, at_s=time.monotonic(), trouble=str(error).removeprefix(f"{url} "))
        at_s = time.monotonic()
        if status != 200:
            return Page(url=url, at_s=at_s, trouble=f"answers {status}, wanted 200")
        if len(body) > MAX_PAGE_BYTES:  # a part of it would be numbers like any other
            return Page(url=url, at_s=at_s, trouble=f"its page has more than {MAX_PAGE_BYTES} bytes")
        return parse_page(url, body.decode(errors="replace"), at_s=at_s)


def led_to(page: Page) -> list[str]:
    """The pages of the servers that a trainer's page names; of those on its own loopback only if that is this one."""
    near = is_here(urlsplit(page.url).netloc)
    return [metrics_url(place) for place in server_pages(page) if _is_page(place) and (near or not is_here(place))]


def _is_page(place: str) -> bool:
    """Whether it is HOST:PORT and no more."""
    try:
        return page_place(f"http://{place}/metrics") == place
    except ValueError:
        return False
