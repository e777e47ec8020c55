/// What a ``SocketTransport`` is set up with, and what it knows of its state.
extension SocketTransport {
    /// How much may wait before ``isWritable`` turns false (above `high`) and true again (below `low`), in bytes.
    public struct WaterMarks: Sendable {
        public var low: Int
        public var high: Int
        public init(low: Int = 32 * 1024, high: Int = 64 * 1024) {
            self.low = max(low, 1)
            self.high = max(high, self.low)
        }
    }

    /// What is the case with the connection.
    struct Flags: OptionSet {
        let rawValue: UInt32
        /// The consumer wants input.
        static let reading = Flags(rawValue: 1 << 0)
        /// The channel has been told to stop reading.
        static let paused = Flags(rawValue: 1 << 1)
        /// In the flusher's list.
        static let listed = Flags(rawValue: 1 << 2)
        static let unflushed = Flags(rawValue: 1 << 3)
        /// The writability that the consumer knows of.
        static let toldWritable = Flags(rawValue: 1 << 4)
        static let owesWritability = Flags(rawValue: 1 << 5)
        /// closeOutput() or close() was called.
        static let outputEnding = Flags(rawValue: 1 << 6)
        /// The end of output is on its way to the channel.
        static let outputEndSent = Flags(rawValue: 1 << 7)
        static let outputClosed = Flags(rawValue: 1 << 8)
        /// The peer has ended its output.
        static let inputClosed = Flags(rawValue: 1 << 9)
        static let toldInputClosed = Flags(rawValue: 1 << 10)
        /// close() was called.
        static let closing = Flags(rawValue: 1 << 11)
        /// The consumer's last call is due.
        static let ended = Flags(rawValue: 1 << 12)
        static let toldClosed = Flags(rawValue: 1 << 13)
        static let secure = Flags(rawValue: 1 << 14)
        /// The connection under TLS is reporting its end of stream.
        static let bottomEnding = Flags(rawValue: 1 << 15)
        /// The input ended without the farewell of TLS.
        static let truncated = Flags(rawValue: 1 << 16)
        /// Something has been read.
        static let begun = Flags(rawValue: 1 << 17)
        /// The socket is read once at a time by now.
        static let readsOnce = Flags(rawValue: 1 << 18)
    }
}
