"""The bridge beside an Asterisk: it hears ARI over a WebSocket, or AMI over TCP."""
