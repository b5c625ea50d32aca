"""Do a request's headers say that a proxy passed it on?

A proxy on this host makes strangers look like loopback. No list of proxies' headers is
complete, so the words of a header's name decide: a word that clients do not send themselves
marks a proxy. A false alarm costs a caller on this host a token; a missed proxy gives a
stranger the role of loopback.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# Searched in each word of a name, as in `WL-Proxy-Client-IP`: words for the request that a
# proxy received, and products that set headers of their own.
_TOLD = re.compile(
    r"forward|proxy|proxied|^via$|^original$|^originating$|^rewrite$|^remote|^hops?$"
    r"|^(?:|client|socket|remote|real|peer|user)(?:ip|addr|address)$|^scheme$|^proto$|^(?:ssl|tls)$"
)
_PRODUCT = re.compile(
    r"akamai|amz|amzn|appengine|arr|azure|bluecoat|cdn|cf|cloud|cloudfront|edge|envoy|fastly|fd|fly"
    r"|gateway|goog|google|haproxy|heroku|imperva|incap|ingress|istio|kong|l5d|linkerd|netlify|nf"
    r"|nginx|squid|sucuri|surrogate|tailscale|tencent|traefik|varnish|vercel|zscaler"
)
# These words count only in a name that begins with `X-`: every client sends `Host`.
_TOLD_BY_X = frozenset({"cert", "client", "cluster", "host", "port", "server", "trusted", "url"})
_NAMES = frozenset({"front-end-https"})


def passed_on(header_names: Iterable[str]) -> bool:
    """Return whether any of these headers is a proxy's."""
    return any(_is_a_proxys(name.lower()) for name in header_names)


def _is_a_proxys(name: str) -> bool:
    words = name.split("-")
    if name in _NAMES or any(_PRODUCT.fullmatch(word) for word in words):
        return True
    if words[0] == "x" and not _TOLD_BY_X.isdisjoint(words):
        return True
    return any(_TOLD.search(word) for word in words)
