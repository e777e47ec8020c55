@main struct KiteProxyCommand { static func main() {} }
