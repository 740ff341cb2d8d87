"""An HTTP server that speaks OpenAI's protocol: requests of many clients, run together by one engine."""
