// A stand-in for kites written in Go years ago: the libraries they use (gorilla/websocket, igm/sockjs-go) and the messages that they
// send. Every mode prints one JSON object per line.
//
//	gokite tunnel NAME          registers with the kite "tunnelproxy" (or KITE_PROXY_URL) and serves through kite.tunnel
//	gokite direct NAME          listens, and registers its URL with the kite "proxy" (or KITE_PROXY_URL)
//	gokite find NAME            asks Kontrol for a kite: URL and token
//	gokite visit URL            calls the kite's methods; AUTH=type:key, TRANSPORT=WebSocket|XHRPolling, SIZE=bytes of the largest message
//	gokite crowd URL COUNT      that many sessions at the same time, one call each
//	gokite wire URL METHOD [ARG] one call, printing the messages as they come
//
// Kontrol and the user come from $KITE_HOME/kite.key, the environment from KITE_ENVIRONMENT.
package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/ioutil"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

type config struct {
	key, username, kontrolUser, kontrolURL, environment string
}

func main() {
	if len(os.Args) < 3 {
		fail("usage: gokite tunnel|direct|find|visit|crowd|wire ...")
	}
	conf := readConfig()
	switch os.Args[1] {
	case "tunnel":
		registerToProxy(conf, os.Args[2], "")
	case "direct":
		registerToProxy(conf, os.Args[2], listen(conf, os.Args[2]))
	case "find":
		find(conf, os.Args[2])
	case "visit":
		visit(conf, os.Args[2])
	case "crowd":
		crowd(conf, os.Args[2], os.Args[3])
	case "wire":
		wire(conf, os.Args[2], os.Args[3:])
	default:
		fail("no such mode: " + os.Args[1])
	}
}

func readConfig() config {
	text, err := ioutil.ReadFile(filepath.Join(os.Getenv("KITE_HOME"), "kite.key"))
	if err != nil {
		return config{username: "nobody", environment: os.Getenv("KITE_ENVIRONMENT")}
	}
	parts := strings.Split(strings.TrimSpace(string(text)), ".")
	var claims struct {
		Sub        string `json:"sub"`
		Iss        string `json:"iss"`
		KontrolURL string `json:"kontrolURL"`
	}
	if len(parts) == 3 {
		payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
		json.Unmarshal(payload, &claims)
	}
	return config{
		key: strings.TrimSpace(string(text)), username: claims.Sub, kontrolUser: claims.Iss,
		kontrolURL: claims.KontrolURL, environment: os.Getenv("KITE_ENVIRONMENT"),
	}
}

var printing sync.Mutex

func say(value interface{}) {
	printing.Lock()
	defer printing.Unlock()
	text, _ := json.Marshal(value)
	fmt.Println(string(text))
}

func fail(reason interface{}) {
	fmt.Fprintln(os.Stderr, reason)
	os.Exit(1)
}
