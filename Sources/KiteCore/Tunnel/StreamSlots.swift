/// The streams that one side of a lane has opened, found by slot.

/// A dense table: stream ids carry the slot, so that a frame finds its stream by an array index.
struct StreamSlots {
    private var streams: [TunnelStream?] = []
    /// The generation of each slot's present or last stream.
    private var generations: [UInt16] = []
    private var free: [UInt16] = []

    /// How many streams are open.
    private(set) var count = 0

    /// What a frame's stream id stands for.
    enum Lookup {
        case stream(TunnelStream)
        /// A stream that has ended; what crossed its end is ignored.
        case ended
        /// There never was such a stream.
        case unknown
    }

    func find(_ id: TunnelStreamID) -> Lookup {
        let slot = Int(id.slot)
        guard slot < streams.count else { return .unknown }
        let age = (generations[slot] &- id.generation) & 0x7FFF
        if age == 0 {
            if let stream = streams[slot] { return .stream(stream) }
            return .ended
        }
        return age == 1 ? .ended : .unknown
    }

    /// The id for a new stream of ours; nil when `limit` are open. Reserve by ``insert(_:)``.
    func nextID(openedByAgent: Bool, limit: Int) -> TunnelStreamID? {
        guard count < limit else { return nil }
        if let slot = free.last {
            return TunnelStreamID(
                openedByAgent: openedByAgent, generation: generations[Int(slot)] &+ 1, slot: slot)
        }
        guard streams.count < min(limit, TunnelWire.slots) else { return nil }
        return TunnelStreamID(openedByAgent: openedByAgent, generation: 0, slot: UInt16(streams.count))
    }

    /// Enters a stream that we open, under an id from ``nextID(openedByAgent:limit:)``.
    mutating func insert(_ stream: TunnelStream) {
        let slot = Int(stream.id.slot)
        if slot < streams.count { free.removeLast() }
        _ = accept(stream, limit: TunnelWire.slots)
    }

    /// Whether the peer may open this stream: its slot is in range and free, and the generation is the slot's next.
    func mayOpen(_ id: TunnelStreamID, limit: Int) -> Bool {
        let slot = Int(id.slot)
        guard slot < limit else { return false }
        // Slots are used from the lowest on, so a table never has more entries than there were streams at a time.
        guard slot < streams.count else { return slot == streams.count && id.generation == 0 }
        return streams[slot] == nil && (generations[slot] &+ 1) & 0x7FFF == id.generation
    }

    /// Enters a stream that the peer opened.
    /// - Returns: false when it may not.
    mutating func accept(_ stream: TunnelStream, limit: Int) -> Bool {
        guard mayOpen(stream.id, limit: limit) else { return false }
        let slot = Int(stream.id.slot)
        if slot == streams.count {
            streams.append(stream)
            generations.append(0)
        } else {
            streams[slot] = stream
            generations[slot] = stream.id.generation
        }
        count += 1
        return true
    }

    /// The stream has ended on both sides.
    /// - Returns: Whether it was there.
    mutating func remove(_ id: TunnelStreamID, isOurs: Bool) -> Bool {
        let slot = Int(id.slot)
        guard slot < streams.count, let stream = streams[slot], stream.id == id else { return false }
        streams[slot] = nil
        count -= 1
        if isOurs { free.append(id.slot) }
        return true
    }

    /// All open streams.
    var all: [TunnelStream] { streams.compactMap(\.self) }
}
