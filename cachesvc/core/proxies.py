"""Do a request's headers say that a proxy passed it on?

A proxy on this host makes strangers look like loopback. No list of proxies' headers is
complete, so a name is judged by its words: a word that clients do not send of their own
accord is a proxy's. A wrong guess costs a caller on this host a token; a missed one gives a
stranger the role of loopback.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# Searched in each word of a name, as in `WL-Proxy-Client-IP`: what a proxy tells of the
# request it received, and products that set headers of their own.
_TOLD = re.compile(
    r"forward|proxy|proxied|^via$|^original$|^originating$|^rewrite$|^remote|^hops?$"
    r"|^(?:|client|socket|remote|real|peer|user)(?:ip|addr|address)$|^scheme$|^proto$|^(?:ssl|tls)$"
)
_PRODUCT = re.compile(
    r"akamai|amz|amzn|appengine|arr|azure|bluecoat|cdn|cf|cloud|cloudfront|edge|envoy|fastly|fd|fly"
    r"|gateway|goog|google|haproxy|heroku|imperva|incap|ingress|istio|kong|l5d|linkerd|netlify|nf"
    r"|nginx|squid|sucuri|surrogate|tailscale|tencent|traefik|varnish|vercel|zscaler"
)
# In a name that begins with `X-` alone: `Host` itself is everybody's.
_TOLD_BY_X = frozenset({"cert", "client", "cluster", "host", "port", "server", "trusted", "url"})
_NAMES = frozenset({"front-end-https"})


def passed_on(header_names: Iterable[str]) -> bool:
    """Return whether any of these names is one that proxies set."""
    return any(_is_a_proxys(name.lower()) for name in header_names)


def _is_a_proxys(name: str) -> bool:
    words = name.split("-")
    if name in _NAMES or any(_PRODUCT.fullmatch(word) for word in words):
        return True
    if words[0] == "x" and not _TOLD_BY_X.isdisjoint(words):
        return True
    return any(_TOLD.search(word) for word in words)
