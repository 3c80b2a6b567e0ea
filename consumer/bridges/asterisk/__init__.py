"""The bridge beside an Asterisk. It receives events from ARI over a WebSocket, or from AMI over TCP."""
