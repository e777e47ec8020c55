import ACME
