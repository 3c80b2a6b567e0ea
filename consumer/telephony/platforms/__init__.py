"""One module for each telephony platform; the registry lists them."""
