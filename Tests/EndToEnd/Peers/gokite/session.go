package main

// The client side of SockJS as Go kites speak it.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/ioutil"
	"math/rand"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// What both ends have: igm/sockjs-go's Session is one too.
type session interface {
	Recv() (string, error)
	Send(string) error
	Close(status uint32, reason string) error
}

type closedError struct {
	Code   int
	Reason string
}

func (e closedError) Error() string { return fmt.Sprintf("closed: %d %s", e.Code, e.Reason) }

type webSocketSession struct {
	// Frames are shown under this name when SHOW_WIRE is set.
	label    string
	conn     *websocket.Conn
	messages []string
	mu       sync.Mutex
}

func sessionPath() (string, string) {
	const letters = "0123456789abcdef"
	id := make([]byte, 20)
	for i := range id {
		id[i] = letters[rand.Intn(len(letters))]
	}
	return fmt.Sprint(100 + rand.Intn(900)), string(id)
}

func dialWebSocket(base, label string) (session, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	header := http.Header{"Origin": {u.Scheme + "://" + u.Host}}
	if u.Scheme == "https" || u.Scheme == "wss" {
		u.Scheme = "wss"
	} else {
		u.Scheme = "ws"
	}
	if _, _, err := net.SplitHostPort(u.Host); err != nil {
		u.Host = net.JoinHostPort(u.Host, "80")
	}
	server, id := sessionPath()
	u.Path = path.Join(u.Path, server, id, "websocket")
	return dialURL(u.String(), header, label)
}

func dialURL(address string, header http.Header, label string) (session, error) {
	// The default dialer writes fragments of 4096 bytes.
	conn, response, err := websocket.DefaultDialer.Dial(address, header)
	if err != nil {
		if response != nil {
			return nil, fmt.Errorf("%v: %s", err, response.Status)
		}
		return nil, err
	}
	return &webSocketSession{conn: conn, label: label}, nil
}

func (w *webSocketSession) Recv() (string, error) {
	for {
		if len(w.messages) > 0 {
			message := w.messages[0]
			w.messages = w.messages[1:]
			return message, nil
		}
		_, frame, err := w.conn.ReadMessage()
		if err != nil {
			if e, ok := err.(*websocket.CloseError); ok {
				return "", closedError{e.Code, e.Text}
			}
			return "", err
		}
		w.show("received", frame)
		messages, err := parseFrame(frame)
		if err != nil {
			return "", err
		}
		w.messages = messages
	}
}

func parseFrame(frame []byte) ([]string, error) {
	if len(frame) == 0 {
		return nil, errors.New("unexpected empty message")
	}
	switch frame[0] {
	case 'o', 'h':
		return nil, nil
	case 'a':
		var messages []string
		return messages, json.Unmarshal(frame[1:], &messages)
	case 'c':
		var parts []interface{}
		json.Unmarshal(frame[1:], &parts)
		if len(parts) == 2 {
			return nil, closedError{int(parts[0].(float64)), parts[1].(string)}
		}
	}
	return nil, errors.New("invalid frame type")
}

func (w *webSocketSession) Send(message string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	frame, _ := json.Marshal([]string{message})
	w.show("sent", frame)
	return w.conn.WriteMessage(websocket.TextMessage, frame)
}

func (w *webSocketSession) show(what string, frame []byte) {
	if os.Getenv("SHOW_WIRE") != "" {
		say(map[string]string{"wire": w.label, what: string(frame)})
	}
}

// Go kites close without a close frame; a code is sent where a test asks for one.
func (w *webSocketSession) Close(status uint32, reason string) error {
	if status != 0 {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.conn.WriteControl(
			websocket.CloseMessage, websocket.FormatCloseMessage(int(status), reason), time.Now().Add(time.Second))
	}
	return w.conn.Close()
}

type xhrSession struct {
	url      string
	messages []string
}

// As Go's client does it, which appends the session to the whole URL, its query included.
func dialXHR(base string) (session, error) {
	server, id := sessionPath()
	s := &xhrSession{url: base + "/" + server + "/" + id}
	response, err := http.Post(s.url+"/xhr", "text/plain", nil)
	if err != nil {
		return nil, err
	}
	body, _ := ioutil.ReadAll(response.Body)
	response.Body.Close()
	if response.StatusCode != 200 || string(body) != "o\n" {
		return nil, fmt.Errorf("can't start session: %s %q", response.Status, body)
	}
	return s, nil
}

func (x *xhrSession) Recv() (string, error) {
	for {
		if len(x.messages) > 0 {
			message := x.messages[0]
			x.messages = x.messages[1:]
			return message, nil
		}
		response, err := http.Post(x.url+"/xhr", "text/plain", nil)
		if err != nil {
			return "", err
		}
		body, _ := ioutil.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != 200 {
			return "", errors.New(response.Status)
		}
		x.messages, err = parseFrame(bytes.TrimSuffix(body, []byte("\n")))
		if err != nil {
			return "", err
		}
	}
}

func (x *xhrSession) Send(message string) error {
	body, _ := json.Marshal([]string{message})
	response, err := http.Post(x.url+"/xhr_send", "text/plain", strings.NewReader(string(body)))
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != 204 {
		return errors.New(response.Status)
	}
	return nil
}

func (x *xhrSession) Close(uint32, string) error { return nil }

func dial(base, transport, label string) (session, error) {
	if transport == "XHRPolling" {
		return dialXHR(base)
	}
	return dialWebSocket(base, label)
}
