package main

// The kite behind the gateway: what it serves, how it registers, and how it dials back.

import (
	"fmt"
	"math/rand"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/igm/sockjs-go/sockjs"
)

func newKite(conf config, name string) kiteInfo {
	host, _ := os.Hostname()
	return kiteInfo{
		Name: name, Username: conf.username, ID: uuid(), Environment: conf.environment, Region: "local",
		Version: "1.0.0", Hostname: host,
	}
}

func methods(me kiteInfo) map[string]handler {
	handlers := map[string]handler{
		"kite.ping": func(*request) (interface{}, error) { return "pong", nil },
		"square": func(r *request) (interface{}, error) {
			x, _ := r.arg(0).(float64)
			return x * x, nil
		},
		"len": func(r *request) (interface{}, error) {
			text, _ := r.arg(0).(string)
			return len(text), nil
		},
		"big": func(r *request) (interface{}, error) {
			n, _ := r.arg(0).(float64)
			return strings.Repeat("x", int(n)), nil
		},
		"fail": func(*request) (interface{}, error) { return nil, fmt.Errorf("something failed") },
		"sleep": func(r *request) (interface{}, error) {
			seconds, _ := r.arg(0).(float64)
			time.Sleep(time.Duration(seconds * float64(time.Second)))
			return seconds, nil
		},
		"callme": func(r *request) (interface{}, error) {
			said, err := r.peer.tell(10*time.Second, "hello", "hello from "+me.ID)
			return map[string]interface{}{"youSaid": said}, err
		},
		// What the browser's page calls.
		"callPage": func(r *request) (interface{}, error) { return r.peer.tell(10*time.Second, "twice", r.arg(0)) },
		"count": func(r *request) (interface{}, error) {
			counted, ok := r.arg(0).(function)
			for i := 1; i <= 3 && ok; i++ {
				counted(i)
			}
			return nil, nil
		},
		"subscribe": func(r *request) (interface{}, error) {
			n, _ := r.arg(0).(float64)
			onEvent, ok := r.arg(1).(function)
			if !ok {
				return nil, fmt.Errorf("no function")
			}
			go func() {
				for i := 0; i < int(n); i++ {
					onEvent(i, "event")
				}
			}()
			return "subscribed", nil
		},
		"auth": func(r *request) (interface{}, error) { return r.auth != nil, nil },
		"close": func(r *request) (interface{}, error) {
			code, _ := r.arg(0).(float64)
			go r.peer.session.Close(uint32(code), "as asked")
			return nil, nil
		},
	}
	// As in Go's kite: dial back, and serve whoever comes through as if we had called them.
	handlers["kite.tunnel"] = func(r *request) (interface{}, error) {
		options, _ := r.arg(0).(map[string]interface{})
		address, _ := options["url"].(string)
		parsed, err := url.Parse(address)
		if err != nil {
			return nil, err
		}
		if os.Getenv("SHOW_TUNNELS") != "" {
			say(map[string]interface{}{"tunnel": address, "kite": r.kite})
		}
		if os.Getenv("REFUSE_TUNNELS") != "" {
			return nil, fmt.Errorf("no tunnels today")
		}
		if os.Getenv("IGNORE_TUNNELS") != "" {
			return nil, nil
		}
		s, err := dialURL(address, http.Header{"Origin": {"http://" + parsed.Host}}, "tunnel")
		if err != nil {
			return nil, err
		}
		go newPeer(s, me, nil, handlers).run()
		return nil, nil
	}
	return handlers
}

// Serves the kite with igm/sockjs-go on a port of its own.
func listen(conf config, name string) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fail(err)
	}
	me := newKite(conf, name)
	go http.Serve(listener, sockjs.NewHandler("/kite", sockjs.DefaultOptions, func(s sockjs.Session) {
		newPeer(s, me, nil, methods(me)).run()
	}))
	return "http://" + listener.Addr().String() + "/kite"
}

func connect(
	address, label string, me kiteInfo, credentials *auth, handlers map[string]handler,
) (*peer, error) {
	s, err := dial(address, os.Getenv("KITE_TRANSPORT"), label)
	if err != nil {
		return nil, err
	}
	p := newPeer(s, me, credentials, handlers)
	go p.run()
	return p, nil
}

func heartbeats(handlers map[string]handler) map[string]handler {
	handlers["kite.heartbeat"] = func(r *request) (interface{}, error) {
		seconds, _ := r.arg(0).(float64)
		ping, ok := r.arg(1).(function)
		if !ok {
			return nil, fmt.Errorf("no function")
		}
		go func() {
			for ping() == nil {
				time.Sleep(time.Duration(seconds * float64(time.Second)))
			}
		}()
		return nil, nil
	}
	return handlers
}

func kontrol(conf config, me kiteInfo) *peer {
	p, err := connect(conf.kontrolURL, "kontrol", me, &auth{"kiteKey", conf.key}, heartbeats(methods(me)))
	if err != nil {
		fail(err)
	}
	return p
}

func getKites(p *peer, username, environment, name string) ([]map[string]interface{}, error) {
	result, err := p.tell(10*time.Second, "getKites", map[string]interface{}{
		"query": map[string]string{
			"username": username, "environment": environment, "name": name, "version": "", "region": "", "hostname": "",
			"id": "",
		},
		"watchCallback": nil, "who": nil,
	})
	if err != nil {
		return nil, err
	}
	answer, _ := result.(map[string]interface{})
	list, _ := answer["kites"].([]interface{})
	var kites []map[string]interface{}
	for _, each := range list {
		kites = append(kites, each.(map[string]interface{}))
	}
	if len(kites) == 0 {
		return nil, fmt.Errorf("no kites")
	}
	return kites, nil
}

// RegisterToProxy and RegisterToTunnel: an empty URL means a tunnel.
func registerToProxy(conf config, name, own string) {
	me := newKite(conf, name)
	if id := os.Getenv("KITE_ID"); id != "" {
		me.ID = id
	}
	var registry *peer
	if conf.kontrolURL != "" && os.Getenv("NO_KONTROL") == "" {
		registry = kontrol(conf, me)
	}
	proxyName := "proxy"
	if own == "" {
		proxyName = "tunnelproxy"
	}
	for {
		address, credentials := os.Getenv("KITE_PROXY_URL"), &auth{"kiteKey", conf.key}
		if address == "" && registry == nil {
			fail("neither a kite key nor KITE_PROXY_URL says where to register")
		}
		if address == "" {
			kites, err := getKites(registry, conf.kontrolUser, conf.environment, proxyName)
			if err != nil {
				say(map[string]string{"error": err.Error()})
				time.Sleep(200 * time.Millisecond)
				continue
			}
			chosen := kites[rand.Intn(len(kites))]
			address, credentials = chosen["url"].(string), &auth{"token", chosen["token"].(string)}
		}
		proxy, err := connect(address, "proxy", me, credentials, methods(me))
		if err != nil {
			say(map[string]string{"error": err.Error()})
			time.Sleep(200 * time.Millisecond)
			continue
		}
		args := []interface{}{own}
		if os.Getenv("PUBLIC") != "" {
			args = append(args, map[string]bool{"public": true})
		}
		if os.Getenv("NO_ARGUMENT") != "" {
			args = nil
		}
		result, err := proxy.tell(10*time.Second, "register", args...)
		if err != nil {
			say(map[string]string{"error": err.Error()})
			time.Sleep(200 * time.Millisecond)
			continue
		}
		if registry != nil {
			_, err = registry.tell(10*time.Second, "register", map[string]interface{}{"url": result})
			if err != nil {
				say(map[string]string{"error": err.Error()})
			}
		}
		say(map[string]interface{}{"url": result, "id": me.ID, "name": name})
		err = <-proxy.closed
		say(map[string]string{"disconnected": err.Error()})
	}
}
