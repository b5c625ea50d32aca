"""Which header names show that a proxy forwarded the request? Promise 10."""

from __future__ import annotations

import pytest

from cachesvc.core.proxies import passed_on

PROXIES = """
Via Forwarded X-Forwarded X-Forwarded-For X-Forwarded-Host X-Forwarded-Proto X-Forwarded-Port
X-Forwarded-Server X-Forwarded-Prefix X-Forwarded-Scheme X-Forwarded-Ssl
X-Forwarded-Client-Cert X-Forward-For Forwarded-For Z-Forwarded-For X-Real-IP X-Real-Port
X-Client-IP Client-IP True-Client-IP X-True-Client-IP X-Cluster-Client-IP WL-Proxy-Client-IP
X-ProxyUser-Ip X-Originating-IP X-Remote-IP X-Remote-Addr Remote-User X-Original-URL
X-Original-Host X-Original-Forwarded-For X-Rewrite-URL X-Host X-HTTP-Host-Override X-Scheme
X-Url-Scheme Front-End-Https X-Nginx-Proxy Proxy-Connection Proxy-Authorization X-Via
X-BlueCoat-Via X-Envoy-External-Address X-Envoy-Expected-Rq-Timeout-Ms X-Amzn-Trace-Id
X-Amz-Cf-Id CF-Connecting-IP CF-Ray CF-Visitor CF-IPCountry CDN-Loop Fastly-Client-IP
Fastly-SSL X-Azure-ClientIP X-Azure-SocketIP X-FD-HealthProbe X-ARR-SSL X-ARR-ClientCert
Fly-Client-IP X-Vercel-Id X-Nf-Client-Connection-Ip X-Appengine-Remote-Addr
X-Cloud-Trace-Context X-Varnish X-Kong-Request-Id X-Traefik-Router X-Haproxy-Server-State
X-Client-Cert X-SSL-Client-Verify X-Akamai-Edgescape Tailscale-User-Login x-forwarded-for VIA
"""
CLIENTS = """
Accept Accept-Encoding Accept-Language Authorization Cache-Control Connection Content-Length
Content-Type Content-Encoding Cookie DNT Expect Host If-Modified-Since If-None-Match Origin
Pragma Priority Range Referer Sec-CH-UA Sec-CH-UA-Mobile Sec-CH-UA-Platform Sec-Fetch-Dest
Sec-Fetch-Mode Sec-Fetch-Site Sec-Fetch-User Sec-GPC Sec-WebSocket-Protocol TE
Transfer-Encoding Upgrade-Insecure-Requests User-Agent X-Requested-With X-Request-Id
X-Correlation-Id X-CSRF-Token traceparent tracestate baggage b3 X-B3-TraceId
X-Prometheus-Scrape-Timeout-Seconds Access-Control-Request-Method grpc-accept-encoding
grpc-trace-bin grpc-timeout
"""


@pytest.mark.parametrize("name", PROXIES.split())
def test_a_name_that_proxies_set_says_that_one_passed_it_on(name: str) -> None:
    assert passed_on(["Host", name, "Accept"])


def test_what_browsers_curl_probes_and_tracing_send_says_nothing_of_a_proxy() -> None:
    assert [name for name in CLIENTS.split() if passed_on([name])] == []
