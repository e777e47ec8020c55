/// What each connection to Kontrol has set going, so that it ends with the connection.

/// Watchers and heartbeats by connection. A value behind the server's lock.
struct KontrolSessions {
    private struct Session {
        var watchers: Set<String> = []
        /// Heartbeat streams by the kite's path.
        var heartbeats: [String: AsyncStream<Void>.Continuation] = [:]
    }
    /// The most watchers, and the most registered kites, of one connection.
    static let maximumPerConnection = 64

    private var sessions: [UInt64: Session] = [:]

    var count: Int { sessions.count }

    /// - Returns: false when the connection has too many.
    mutating func add(watcher id: String, of connection: UInt64) -> Bool {
        guard sessions[connection]?.watchers.count ?? 0 < Self.maximumPerConnection else { return false }
        sessions[connection, default: Session()].watchers.insert(id)
        return true
    }

    func has(watcher id: String, of connection: UInt64) -> Bool {
        sessions[connection]?.watchers.contains(id) ?? false
    }

    /// - Returns: false when it is not the connection's.
    mutating func remove(watcher id: String, of connection: UInt64) -> Bool {
        let isRemoved = sessions[connection]?.watchers.remove(id) != nil
        tidy(connection)
        return isRemoved
    }

    /// Begins the heartbeats of a kite; those of its earlier registration on the same connection end.
    /// - Returns: nil when the connection has too many.
    mutating func beginHeartbeats(
        of kite: String, on connection: UInt64
    ) -> (beats: AsyncStream<Void>, beat: AsyncStream<Void>.Continuation)? {
        if let earlier = sessions[connection]?.heartbeats.removeValue(forKey: kite) { earlier.finish() }
        guard sessions[connection]?.heartbeats.count ?? 0 < Self.maximumPerConnection else { return nil }
        let (beats, beat) = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingNewest(1))
        sessions[connection, default: Session()].heartbeats[kite] = beat
        return (beats, beat)
    }

    /// The connection is over.
    mutating func end(_ connection: UInt64) {
        for beat in (sessions.removeValue(forKey: connection)?.heartbeats ?? [:]).values { beat.finish() }
    }

    private mutating func tidy(_ connection: UInt64) {
        if let session = sessions[connection], session.watchers.isEmpty, session.heartbeats.isEmpty {
            sessions[connection] = nil
        }
    }
}
