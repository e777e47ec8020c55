#!/usr/bin/env python3
"""Signs claims (JSON) as Kontrol signs tokens and kite keys (RS256): forge.py PRIVATE_KEY_FILE CLAIMS. Prints the token."""
import base64, subprocess, sys

key, claims = sys.argv[1:]


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


signed = encoded(b'{"alg":"RS256","typ":"JWT"}') + b"." + encoded(claims.encode())
signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", key], input=signed, stdout=subprocess.PIPE, check=True).stdout
print((signed + b"." + encoded(signature)).decode())
