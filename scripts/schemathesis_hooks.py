"""What the API refuses and OpenAPI has no words for: parameters that exclude each other, and a mode that only some
resources offer.

Requests with such pairs are not sent as valid ones, resources with slots are not made; tests/api shows what is
refused with 400.
"""

import schemathesis


@schemathesis.hook
def map_query(context, query):
    # The server under test lets nobody wait for longer than a second, so that a run comes to its end.
    if isinstance(query, dict) and "wait" in query:
        query["wait"] = "0.5"
    return query


@schemathesis.hook
def filter_case(context, case):
    headers = {name.lower(): value for name, value in (case.headers or {}).items()}
    if "if-match" in headers and "if-none-match" in headers:
        return False
    query = case.query or {}
    if not isinstance(query, dict):
        return True
    # Only a read without the lock can be conditional.
    reads_only = query.get("lock") in ("0", "false")
    is_document = case.method == "GET" and case.path.endswith(("/{selector}", "/force-unlock"))
    if is_document and "if-none-match" in headers and not reads_only:
        return False
    # Parameters that nobody knows are ignored, as those of a client's own proxies are.
    if "x-schemathesis-unknown-property" in query:
        return False
    if "after" in query and query.get("sort") in ("waiting", "held"):
        return False
    if query.get("queue") in ("0", "false") and "wait" in query:
        return False
    return True


@schemathesis.hook
def map_body(context, body):
    # A resource with several slots has no shared mode. What is no number of slots is sent as it is.
    slots = body.get("slots") if isinstance(body, dict) else None
    if isinstance(slots, (int, float)) and 1 < slots <= 1000 and slots == int(slots):
        body = {**body, "slots": 1}
    return body
