// Kite
