@main struct TunnelClientCommand { static func main() {} }
