"""HTTP/1.1 on a connection that can be passed between processes: bytes, requests, responses, and its ends."""
