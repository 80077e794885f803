"""The few words that O*NET does not have: industries, cities, levels, names, openings of posts and ads."""

from __future__ import annotations

INDUSTRIES = {
    "11": "Management", "13": "Business and Finance", "15": "Software and Data", "17": "Engineering",
    "19": "Science", "21": "Social Services", "23": "Law", "25": "Education", "27": "Arts and Media",
    "29": "Health Care", "31": "Care Support", "33": "Protective Services", "35": "Food Service",
    "37": "Cleaning and Grounds", "39": "Personal Services", "41": "Sales", "43": "Office Services",
    "45": "Farming and Forestry", "47": "Construction", "49": "Installation and Repair", "51": "Manufacturing",
    "53": "Transport", "55": "Defence",
}  # fmt: skip
"""The SOC's major groups (U.S. Bureau of Labor Statistics, 2018), in a word or two."""

CITIES = (
    "New York", "London", "Bangalore", "San Francisco", "Paris", "Toronto", "Berlin", "Chicago", "Singapore",
    "Amsterdam", "Austin", "Dublin", "Madrid", "Seattle", "Sydney", "Munich", "Boston", "Warsaw", "Stockholm",
    "Lisbon", "Denver", "Zurich", "Tel Aviv", "Nairobi", "Mexico City", "Tallinn", "Oslo", "Prague", "Lagos", "Porto",
)  # fmt: skip
"""The most common first."""

LEVELS = ("intern", "junior", "mid-level", "senior", "lead", "director")
LEVEL_SHARES = (0.06, 0.22, 0.32, 0.22, 0.12, 0.06)

SIZES = ("1-10", "11-50", "51-200", "201-1000", "1001-5000", "5001+")
"""Employees of a company."""

FIRST_NAMES = (
    "Ada", "Ahmed", "Aiko", "Amara", "Anna", "Bruno", "Carla", "Chen", "Chidi", "Clara", "Daniel", "Diana", "Elena",
    "Emil", "Fatima", "Felix", "Grace", "Hana", "Hugo", "Ines", "Ivan", "Jonas", "Julia", "Kofi", "Laila", "Leo",
    "Lucia", "Marco", "Maria", "Mei", "Nadia", "Noah", "Olga", "Omar", "Paula", "Priya", "Rafael", "Rosa", "Sam",
    "Sofia", "Tomas", "Uma", "Viktor", "Wanda", "Yusuf", "Zoe",
)  # fmt: skip
LAST_NAMES = (
    "Adeyemi", "Alvarez", "Andersen", "Baker", "Bauer", "Bianchi", "Carter", "Costa", "Dubois", "Evans", "Fischer",
    "Garcia", "Haddad", "Hoffmann", "Ito", "Jansen", "Kaya", "Kim", "Kowalski", "Kumar", "Larsen", "Lopez", "Marino",
    "Mensah", "Meyer", "Moreau", "Nakamura", "Nguyen", "Novak", "Okafor", "Olsen", "Park", "Patel", "Pereira",
    "Petrov", "Rossi", "Sato", "Schmidt", "Silva", "Singh", "Smith", "Tanaka", "Torres", "Turner", "Wang", "Weber",
)  # fmt: skip

COMPANY_FIRST = (
    "Alder", "Amber", "Anchor", "Aspen", "Beacon", "Birch", "Blue Harbour", "Bright", "Cedar", "Clearwater", "Cobalt",
    "Copper", "Delta", "Eastgate", "Ember", "Fairfield", "Fern", "Granite", "Green Valley", "Hazel", "Highland",
    "Iron Bridge", "Juniper", "Kestrel", "Lakeside", "Larch", "Lighthouse", "Linden", "Maple", "Meadow", "Northern",
    "Oakwood", "Orchard", "Pioneer", "Quarry", "Redwood", "Ridge", "Riverside", "Silver", "Summit", "Union", "Willow",
)  # fmt: skip
COMPANY_LAST = (
    "Works", "Group", "Partners", "Labs", "Systems", "Services", "Collective", "Industries", "Associates", "Studio",
    "Solutions", "Holdings", "Institute", "Company", "Network",
)  # fmt: skip

POST_OPENINGS = (
    "A lesson from this week about {term}.",
    "What I wish I had known about {term} when I started.",
    "Does anybody else spend half of the day on {term}?",
    "Three years of {term}, and here is what stays.",
    "Proud of what our team did with {term}.",
    "An unpopular opinion about {term}.",
    "We are looking for people who know {term}.",
    "Notes from a talk on {term}.",
    "How do you teach {term} to newcomers?",
    "Good news for everyone in {term}.",
)

AD_OPENINGS = (
    "Get better at {term}",
    "{term}: the course for busy people",
    "Tools for {term} that save hours",
    "Your team's partner for {term}",
    "Free trial: {term} made simple",
    "The yearly meeting on {term}",
)

COMMON = {
    "about", "according", "across", "activities", "against", "also", "another", "appropriate", "areas", "assist",
    "associated", "based", "been", "being", "between", "both", "cases", "classified", "directly", "during",
    "duties", "each", "either", "ensure", "establish", "etc", "every", "excludes", "following", "from", "general",
    "group", "have", "having", "include", "included", "includes", "including", "individual", "into", "involving",
    "kinds", "known", "like", "listed", "make", "making", "members", "more", "most", "must", "necessary", "needs",
    "occupations", "only", "other", "others", "over", "particular", "perform", "persons", "prior", "provide",
    "related", "required", "requiring", "same", "separately", "several", "should", "similar", "some", "specific",
    "specified", "such", "taken", "than", "that", "their", "them", "then", "there", "these", "they", "those",
    "through", "throughout", "types", "under", "upon", "used", "uses", "using", "usually", "various", "when",
    "where", "which", "while", "whom", "whose", "will", "with", "within", "without", "work", "workers", "working",
}  # fmt: skip
"""Words that never make a skill or a topic, beside those of three letters and less."""
