/// Calls the kite of `Examples/MathKite`. The argument is its URL, http://127.0.0.1:3636/kite unless given.
import KiteCore

let url = CommandLine.arguments.dropFirst().first ?? "http://127.0.0.1:3636/kite"
let math = try await KiteClient.connect(to: url)
let result: Int = try await math.tell("square", 4)
print(result)
await math.close()
