package main

// dnode as Go kites speak it: one options object per call, integers in paths, "authentication":null for none.

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"
)

type kiteInfo struct {
	Name        string `json:"name"`
	Username    string `json:"username"`
	ID          string `json:"id"`
	Environment string `json:"environment"`
	Region      string `json:"region"`
	Version     string `json:"version"`
	Hostname    string `json:"hostname"`
}

type auth struct {
	Type string `json:"type"`
	Key  string `json:"key"`
}

type message struct {
	Method    interface{}              `json:"method"`
	Arguments []interface{}            `json:"arguments"`
	Callbacks map[string][]interface{} `json:"callbacks"`
}

// A function of the peer, found among arguments.
type function func(arguments ...interface{}) error

type request struct {
	peer *peer
	args []interface{}
	auth interface{}
	kite map[string]interface{}
}

func (r *request) arg(i int) interface{} {
	if i < len(r.args) {
		return r.args[i]
	}
	return nil
}

type handler func(*request) (interface{}, error)

type peer struct {
	session  session
	kite     kiteInfo
	auth     *auth
	handlers map[string]handler
	onRaw    func(string)
	mu       sync.Mutex
	next     int
	pending  map[int]func([]interface{})
	closed   chan error
}

func newPeer(s session, kite kiteInfo, auth *auth, handlers map[string]handler) *peer {
	return &peer{
		session: s, kite: kite, auth: auth, handlers: handlers, pending: map[int]func([]interface{}){},
		closed: make(chan error, 1),
	}
}

func uuid() string {
	b := make([]byte, 16)
	rand.Read(b)
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (p *peer) register(f func([]interface{})) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := p.next
	p.next++
	p.pending[id] = f
	return id
}

func (p *peer) run() {
	for {
		text, err := p.session.Recv()
		if err != nil {
			p.closed <- err
			return
		}
		if p.onRaw != nil {
			p.onRaw(text)
		}
		var m message
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			p.closed <- err
			return
		}
		p.receive(m)
	}
}

func (p *peer) receive(m message) {
	var args interface{} = m.Arguments
	for id, path := range m.Callbacks {
		number, err := strconv.Atoi(id)
		if err == nil {
			place(args, path, function(func(arguments ...interface{}) error { return p.send(number, arguments, nil) }))
		}
	}
	if number, ok := m.Method.(float64); ok {
		p.mu.Lock()
		f := p.pending[int(number)]
		p.mu.Unlock()
		if f != nil {
			f(m.Arguments)
		}
		return
	}
	name, _ := m.Method.(string)
	options := map[string]interface{}{}
	if len(m.Arguments) == 1 {
		options, _ = m.Arguments[0].(map[string]interface{})
	}
	r := &request{peer: p, auth: options["authentication"]}
	r.args, _ = options["withArgs"].([]interface{})
	r.kite, _ = options["kite"].(map[string]interface{})
	answer, _ := options["responseCallback"].(function)
	go func() {
		result, err := interface{}(nil), error(nil)
		if h := p.handlers[name]; h != nil {
			result, err = h(r)
		} else {
			err = remoteError{"methodNotFound", "Method not found: " + name}
		}
		if answer == nil {
			return
		}
		var failure interface{}
		if err != nil {
			kind, text := "genericError", err.Error()
			if e, ok := err.(remoteError); ok {
				kind, text = e.Type, e.Message
			}
			failure = map[string]string{"type": kind, "message": text, "code": "", "id": "0"}
		}
		answer(map[string]interface{}{"error": failure, "result": result})
	}()
}

// Puts a function where a path points.
func place(tree interface{}, path []interface{}, f function) {
	for i, step := range path {
		last := i == len(path)-1
		switch node := tree.(type) {
		case []interface{}:
			// JavaScript sends positions as strings.
			n, err := strconv.Atoi(fmt.Sprint(step))
			if err != nil || n < 0 || n >= len(node) {
				return
			}
			if last {
				node[n] = f
			}
			tree = node[n]
		case map[string]interface{}:
			key := fmt.Sprint(step)
			if last {
				node[key] = f
			}
			tree = node[key]
		}
	}
}

func (p *peer) send(method interface{}, arguments []interface{}, callbacks map[string][]interface{}) error {
	if callbacks == nil {
		callbacks = map[string][]interface{}{}
	}
	if arguments == nil {
		arguments = []interface{}{}
	}
	text, err := json.Marshal(message{method, arguments, callbacks})
	if err != nil {
		return err
	}
	return p.session.Send(string(text))
}

// A callback to hand to the peer, as an argument of a call.
type callback func(arguments []interface{})

type remoteError struct {
	Type, Message string
}

func (e remoteError) Error() string { return e.Type + ": " + e.Message }

func (p *peer) tell(timeout time.Duration, method string, args ...interface{}) (interface{}, error) {
	type outcome struct {
		result interface{}
		err    error
	}
	done := make(chan outcome, 1)
	id := p.register(func(arguments []interface{}) {
		if len(arguments) != 1 {
			done <- outcome{nil, errors.New("invalidResponse")}
			return
		}
		answer, _ := arguments[0].(map[string]interface{})
		if e, ok := answer["error"].(map[string]interface{}); ok {
			done <- outcome{nil, remoteError{fmt.Sprint(e["type"]), fmt.Sprint(e["message"])}}
			return
		}
		done <- outcome{answer["result"], nil}
	})
	callbacks := map[string][]interface{}{strconv.Itoa(id): {0, "responseCallback"}}
	for i, arg := range args {
		if f, ok := arg.(callback); ok {
			number := p.register(f)
			callbacks[strconv.Itoa(number)] = []interface{}{0, "withArgs", i}
			args[i] = "[Function]"
		}
	}
	var withArgs interface{}
	if len(args) > 0 {
		withArgs = args
	}
	err := p.send(method, []interface{}{map[string]interface{}{
		"kite": p.kite, "authentication": p.auth, "responseCallback": "[Function]", "withArgs": withArgs,
	}}, callbacks)
	if err != nil {
		return nil, err
	}
	defer func() {
		p.mu.Lock()
		delete(p.pending, id)
		p.mu.Unlock()
	}()
	select {
	case o := <-done:
		return o.result, o.err
	case err := <-p.closed:
		p.closed <- err
		return nil, err
	case <-time.After(timeout):
		return nil, errors.New("timeout")
	}
}
