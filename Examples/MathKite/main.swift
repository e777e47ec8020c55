/// The first example of the README: a kite that squares numbers. `swift run MathKite`, then `swift run MathClient`.
import KiteCore

// Everybody may call this one. Leave the authenticator out, and callers must bring a token or a kite key.
let kite = Kite(name: "math", version: "1.0.0", authenticator: .anyone)
kite.handle("square") { (request, number: Double) in number * number }
try await kite.run()
