package main

// Clients of the kite.

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

func find(conf config, name string) {
	me := newKite(conf, "visitor")
	kites, err := getKites(kontrol(conf, me), conf.username, conf.environment, name)
	if err != nil {
		fail(err)
	}
	say(map[string]interface{}{"url": kites[0]["url"], "token": kites[0]["token"]})
}

func credentials(conf config) *auth {
	given := os.Getenv("AUTH")
	if given == "" {
		return nil
	}
	parts := strings.SplitN(given, ":", 2)
	if given == "kiteKey" {
		return &auth{"kiteKey", conf.key}
	}
	return &auth{parts[0], parts[1]}
}

func visitorPeer(conf config, address string) (*peer, error) {
	s, err := dial(address, os.Getenv("TRANSPORT"), "visitor")
	if err != nil {
		return nil, err
	}
	p := newPeer(s, newKite(conf, "visitor"), credentials(conf), map[string]handler{
		"hello": func(*request) (interface{}, error) { return "hi from client", nil },
	})
	return p, nil
}

func visit(conf config, address string) {
	p, err := visitorPeer(conf, address)
	if err != nil {
		fail(err)
	}
	go p.run()
	seen := map[string]interface{}{}
	note := func(name string, result interface{}, err error) {
		if err != nil {
			seen[name] = "!! " + err.Error()
		} else if text, ok := result.(string); ok && len(text) > 64 {
			seen[name] = len(text)
		} else {
			seen[name] = result
		}
	}
	limit := 20 * time.Second
	result, err := p.tell(limit, "square", 4)
	note("square", result, err)
	if err == nil {
		result, err = p.tell(limit, "auth")
		note("auth", result, err)
		result, err = p.tell(limit, "fail")
		note("fail", result, err)
		result, err = p.tell(limit, "callme")
		note("callme", result, err)
		events := make(chan interface{}, 10)
		result, err = p.tell(limit, "subscribe", 3, callback(func(arguments []interface{}) { events <- arguments[0] }))
		note("subscribe", result, err)
		var got []interface{}
		for len(got) < 3 && err == nil {
			select {
			case e := <-events:
				got = append(got, e)
			case <-time.After(limit):
				err = fmt.Errorf("no event")
			}
		}
		seen["events"] = got
		size, _ := strconv.Atoi(os.Getenv("SIZE"))
		if size == 0 {
			size = 20000
		}
		result, err = p.tell(limit, "len", strings.Repeat("y", size))
		note("len", result, err)
		result, err = p.tell(limit, "big", size)
		note("big", result, err)
	}
	if code := os.Getenv("CLOSE"); code != "" {
		number, _ := strconv.Atoi(code)
		p.tell(limit, "close", number)
		select {
		case err := <-p.closed:
			note("close", nil, err)
		case <-time.After(limit):
			seen["close"] = "never"
		}
	}
	say(seen)
	p.session.Close(0, "")
}

func crowd(conf config, address, count string) {
	n, _ := strconv.Atoi(count)
	var wait sync.WaitGroup
	var mu sync.Mutex
	good, failures := 0, map[string]int{}
	peers := make(chan *peer, n)
	for i := 0; i < n; i++ {
		wait.Add(1)
		go func(i int) {
			defer wait.Done()
			p, err := visitorPeer(conf, address)
			var result interface{}
			if err == nil {
				go p.run()
				peers <- p
				result, err = p.tell(60*time.Second, "square", i)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failures[err.Error()]++
			} else if result.(float64) != float64(i*i) {
				failures["wrong result"]++
			} else {
				good++
			}
		}(i)
	}
	wait.Wait()
	say(map[string]interface{}{"good": good, "failures": failures})
	close(peers)
	for p := range peers {
		p.session.Close(0, "")
	}
}

func wire(conf config, address string, rest []string) {
	p, err := visitorPeer(conf, address)
	if err != nil {
		fail(err)
	}
	p.onRaw = func(text string) { say(map[string]string{"received": text}) }
	go p.run()
	var args []interface{}
	if len(rest) > 1 {
		args = append(args, rest[1])
	}
	result, err := p.tell(20*time.Second, rest[0], args...)
	if err != nil {
		say(map[string]string{"error": err.Error()})
	} else {
		say(map[string]interface{}{"result": result})
	}
	p.session.Close(0, "")
}
