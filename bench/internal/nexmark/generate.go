package nexmark

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// The proportions, hot keys and sizes are Beam's: of 50 events one is a person, three are auctions and 46 bids; half of the bids go to one
// auction of a hundred, three quarters of the bids and of the auctions come from one person of a hundred.
const (
	persons, auctions, all = 1, 3, 50

	hotAuctions, hotBidders, hotSellers = 2, 4, 4
	hotEvery                            = 100

	firstID          = 1000
	firstCategory    = 10
	categories       = 5
	activePersons    = 1000 // the last ones bid and sell
	personLead       = 10   // and sell before they have registered
	auctionsInFlight = 100  // the last ones are open

	personBytes, auctionBytes, bidBytes = 200, 500, 100

	firstTime = 1_700_000_000_000
)

var (
	states = [...]string{"AZ", "CA", "ID", "OR", "WA", "WY"}
	cities = [...]string{"Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"}
	given  = [...]string{"Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"}
	family = [...]string{"Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"}
	shops  = [...]string{"Google", "Facebook", "Baidu", "Apple"}
)

// PerSecond is how many events Beam has in a second of their time.
const PerSecond = 10_000

// Generator makes events. What it makes depends on the seed and the rate alone.
type Generator struct {
	n, perSecond int64
	rng          *rand.Rand
	text         string // where texts are cut from
}

// NewGenerator makes a generator that begins with the first event. Of a second of their time there are perSecond events.
func NewGenerator(seed uint64, perSecond int64) *Generator {
	g := &Generator{perSecond: perSecond, rng: rand.New(rand.NewPCG(seed, 0))}
	b := make([]byte, 64<<10)
	for i := range b {
		b[i] = "abcdefghijklmnopqrstuvwxyz    "[g.rng.IntN(30)]
	}
	g.text = string(b)
	return g
}

// Next is the next event.
func (g *Generator) Next() (e Event) {
	at := firstTime + g.n*1000/g.perSecond
	switch rest := g.n % all; {
	case rest < persons:
		e.Person = g.person(at)
	case rest < persons+auctions:
		e.Auction = g.auction(at)
	default:
		e.Bid = g.bid(at)
	}
	g.n++
	return e
}

// lastPerson and lastAuction are the numbers of the last ones so far.
func (g *Generator) lastPerson() int64 { return g.n / all }

func (g *Generator) lastAuction() int64 {
	epoch, rest := g.n/all, g.n%all
	return epoch*auctions + min(rest-persons, auctions-1) // before the epoch's first auction it is the one before
}

// somePerson is one of the active persons, or one of those to come.
func (g *Generator) somePerson() int64 {
	n := g.lastPerson() + 1
	active := min(n, activePersons)
	return n - active + g.rng.Int64N(active+personLead)
}

// hot says, n-1 times of n, that the event is about somebody everybody wants.
func (g *Generator) hot(n int) bool { return g.rng.IntN(n) > 0 }

func (g *Generator) person(at int64) *Person {
	p := &Person{ID: firstID + g.lastPerson(), At: at}
	p.Name = given[g.rng.IntN(len(given))] + " " + family[g.rng.IntN(len(family))]
	p.Email = g.cut(7) + "@" + g.cut(5) + ".com"
	p.CreditCard = fmt.Sprintf("%04d %04d %04d %04d", g.rng.IntN(10000), g.rng.IntN(10000), g.rng.IntN(10000), g.rng.IntN(10000))
	p.City, p.State = cities[g.rng.IntN(len(cities))], states[g.rng.IntN(len(states))]
	p.Extra = g.extra(personBytes - 24 - len(p.Name) - len(p.Email) - len(p.CreditCard) - len(p.City) - len(p.State))
	return p
}

func (g *Generator) auction(at int64) *Auction {
	a := &Auction{ID: firstID + g.lastAuction(), At: at, Category: firstCategory + g.rng.Int64N(categories)}
	if g.hot(hotSellers) {
		a.Seller = g.lastPerson() / hotEvery * hotEvery
	} else {
		a.Seller = g.somePerson()
	}
	a.Seller += firstID
	a.InitialBid = g.price()
	a.Reserve = a.InitialBid + g.price()
	// On average an auction is open until as many others have begun as are open at once.
	open := auctionsInFlight * all / auctions * 1000 / g.perSecond
	a.Expires = at + 1 + g.rng.Int64N(2*open)
	a.Item, a.Description = g.cut(20), g.cut(100)
	a.Extra = g.extra(auctionBytes - 64 - len(a.Item) - len(a.Description))
	return a
}

func (g *Generator) bid(at int64) *Bid {
	b := &Bid{At: at, Price: g.price()}
	last := g.lastAuction()
	if g.hot(hotAuctions) {
		b.Auction = last / hotEvery * hotEvery
	} else {
		first := max(last-auctionsInFlight, 0)
		b.Auction = first + g.rng.Int64N(last-first+1)
	}
	if g.hot(hotBidders) {
		b.Bidder = g.lastPerson()/hotEvery*hotEvery + 1
	} else {
		b.Bidder = g.somePerson()
	}
	b.Auction += firstID
	b.Bidder += firstID
	b.Channel = shops[g.rng.IntN(len(shops))]
	b.URL = "https://www.nexmark.com/" + g.cut(5) + "/item.htm"
	b.Extra = g.extra(bidBytes - 16 - len(b.Channel) - len(b.URL))
	return b
}

// price is between 1 and 1,000,000 dollars, each power of ten as often as another.
func (g *Generator) price() int64 { return int64(math.Round(math.Pow(10, 6*g.rng.Float64()) * 100)) }

// cut is a text of n bytes.
func (g *Generator) cut(n int) string {
	from := g.rng.IntN(len(g.text) - n)
	return g.text[from : from+n]
}

// extra is a text of n bytes, a fifth more or less.
func (g *Generator) extra(n int) string {
	if n < 5 {
		return ""
	}
	return g.cut(n - n/5 + g.rng.IntN(2*(n/5)+1))
}
