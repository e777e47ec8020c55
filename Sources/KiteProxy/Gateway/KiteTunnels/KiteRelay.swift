/// Passes the messages of one session between a visitor and a kite that has dialled back.
import KiteHTTP
import KiteSockJS
import NIOCore

/// Two channels made one. A message is taken from one side when the other has room: a slow reader slows its writer down.
struct KiteRelay: Sendable {
    let visitor: any MessageChannel
    let kite: any MessageChannel
    /// The longest message that is passed on.
    let messageBytes: Int

    /// Relays until either side ends; then both are closed.
    /// - Parameter held: what the visitor has sent before there was a kite.
    func run(holding held: [ByteBuffer]) async {
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await forward(held, from: visitor, to: kite) }
            group.addTask { await forward([], from: kite, to: visitor) }
        }
        // Where both directions were cancelled, nobody has done it.
        visitor.close(code: Self.goAway.code, reason: Self.goAway.reason)
        kite.close(code: Self.goAway.code, reason: Self.goAway.reason)
    }

    private func forward(_ held: [ByteBuffer], from source: any MessageChannel, to sink: any MessageChannel) async {
        do {
            for message in held { try await sink.send(message) }
            while let message = try await source.receive() {
                guard message.readableBytes <= messageBytes else {
                    source.close(code: 1009, reason: "A message is longer than \(messageBytes) bytes")
                    break
                }
                try await sink.send(message)
            }
        } catch let error as TransportError where error.code == .limitExceeded || error.code == .protocolViolation {
            source.close(code: 1011, reason: error.message)
        } catch {
            // One of the two is gone. When it is the sink, the other direction notices and tells the source why.
        }
        let end = source.closing.flatMap { $0.mayBePassedOn ? $0 : nil } ?? Self.goAway
        sink.close(code: end.code, reason: end.reason)
    }

    /// What Go's proxy says.
    private static let goAway = MessageClosing(code: 3000, reason: "Go away!")
}
