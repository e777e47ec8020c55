import KiteHTTP2
