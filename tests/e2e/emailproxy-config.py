# What email-oauth2-proxy leaves: `TOKEN=... emailproxy-config.py PASSWORD` prints the configuration with Alice's sealed refresh token.
import base64, os, sys
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

salt, rounds = os.urandom(16), 10_000
secret = PBKDF2HMAC(hashes.SHA256(), 32, salt, rounds).derive(sys.argv[1].encode())
token = Fernet(base64.urlsafe_b64encode(secret)).encrypt(os.environ['TOKEN'].encode()).decode()
print(f'[Server-IMAP-1993]\nserver_port = 993\n\n[alice@contoso.com]\ntoken_salt = {base64.b64encode(salt).decode()}')
print(f'token_iterations = {rounds}\nrefresh_token = {token}')
