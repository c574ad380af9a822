"""The review pages in Debian's Chromium: argv is the demo's JSON line and a directory for screenshots.

Says what it did line by line, and "ok" at the end; any other end is a failure.
"""

import json
import pathlib
import sys

import axe_playwright_python
from playwright.sync_api import sync_playwright

CHROMIUM = "/usr/bin/chromium"
AXE = (pathlib.Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
AXE_RUN = """async () => (await axe.run(document, {
    runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
})).violations.map(v => ({ id: v.id, impact: v.impact, at: v.nodes.map(n => n.html).slice(0, 3) }))"""
TABS_MAX = 4  # from the answers' heading to the first session
SESSION = "statements-02:15".encode().hex()
HOSTILE = "hostile-at-04:10".encode().hex()

PAGES = {
    "ask-empty": "/ask",
    "ask": "/ask?from=2026-11-21T02%3A15%3A00Z&for=1m&table=customers",
    "ask-day": "/ask?from=2026-11-21&for=24h",
    "not-understood": "/ask?from=yesterday&for=1h",
    "session": f"/session/{SESSION}",
    "hostile": f"/session/{HOSTILE}",
    "review": "/review?from=2026-11-21&for=24h&seed=examiner-7&n=5",
    "integrity": "/integrity",
    "policies": "/policies",
    "exam-empty": "/exam",
    "exam": "/exam/pack?from=2026-11-01&for=31d&seed=examiner-7&n=5",
    "missing": "/session/00",
}
PICTURE_HEIGHT_MAX = 1240  # pixels: what a page says first, in a small file
PICTURES = ["ask", "session", "integrity", "exam"]


def watch(page, base, problems):
    page.on("dialog", lambda dialog: problems.append(f"a dialog: {dialog.message}"))
    page.on("pageerror", lambda error: problems.append(f"an error: {error}"))
    page.on("request", lambda request: request.url.startswith(base) or problems.append(request.url))
    page.on("console", lambda message: "Security Policy" in message.text and problems.append(message.text))


def keyboard(browser, demo, problems):
    """Which service account read a customer record at 02:15 UTC: no mouse, no JavaScript."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    watch(page, demo["url"], problems)
    press = page.keyboard.press
    page.goto(demo["reviewer"])
    page.wait_for_selector("button:focus")  # the page gives it the focus
    press("Enter")
    page.wait_for_url("**/ask")
    page.wait_for_selector("input#from:focus")  # so has the first field of Ask
    page.keyboard.type("2026-11-21 02:15")
    press("Tab")
    press("Home")  # 1 minute
    press("Tab")
    press("Tab")  # past the account
    page.keyboard.type("customers")
    press("Enter")  # first step: ask
    page.wait_for_url("**/ask?*for=1m*#answers")
    answers = page.inner_text("main")
    assert "By svc-statements (2)." in answers, answers
    assert "read public.customers; read public.accounts" in answers, answers
    for tabs in range(1, TABS_MAX + 1):
        press("Tab")
        link = page.locator(":focus").get_attribute("href") or ""
        if link.startswith("/session/"):
            break
    else:
        raise AssertionError(f"no session within {TABS_MAX} tabs; focus is on {link}")
    assert page.locator(":focus").evaluate("e => getComputedStyle(e).outlineWidth") == "3px"
    press("Enter")  # second step: the session
    page.wait_for_url(f"**/session/{SESSION}#e*")
    session = page.inner_text("main")
    for needed in ["/usr/lib/bank/statement-run", "JOIN accounts", "Zürich-Enge", "verified"]:
        assert needed in session, f"no {needed} in {session}"
    print(f"keyboard: 02:15 answered in two steps, {tabs} tabs from the answers, without JavaScript")
    context.close()
    return tabs


def axe(page, name, problems):
    # A click goes on when the next page begins; what is small or far apart goes by its style sheet.
    page.wait_for_load_state("load")
    page.evaluate(AXE)
    for found in page.evaluate(AXE_RUN):
        line = f"axe, {name}: {found['impact']} {found['id']} at {found['at']}"
        if found["impact"] in ("serious", "critical"):
            problems.append(line)
        else:
            print(line)


def looks(context, page, base, scheme, directory, problems):
    """Every page: axe, and the pictures."""
    for name, path in PAGES.items():
        page.goto(base + path)
        axe(page, f"{name} {scheme}", problems)
        if name in PICTURES:
            tall = page.evaluate("document.scrollingElement.scrollHeight")
            clip = {"x": 0, "y": 0, "width": 1200, "height": min(tall, PICTURE_HEIGHT_MAX)}
            page.screenshot(path=f"{directory}/{name}-{scheme}.png", full_page=True, clip=clip)


def narrow(browser, state, base, problems):
    """At 320 CSS pixels no page scrolls sideways (WCAG 2.2, 1.4.10); tables do on their own."""
    context = browser.new_context(storage_state=state, viewport={"width": 320, "height": 640})
    page = context.new_page()
    for name, path in PAGES.items():
        page.goto(base + path)
        width = page.evaluate("document.scrollingElement.scrollWidth")
        if width > 320:
            problems.append(f"{name} is {width} pixels wide at 320")
    context.close()


def main():
    demo, directory = json.loads(sys.argv[1]), sys.argv[2]
    problems = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        keyboard(browser, demo, problems)
        state = None
        for scheme, role in [("light", "examiner"), ("dark", "examiner")]:
            size = {"width": 1200, "height": 940}
            context = browser.new_context(color_scheme=scheme, viewport=size, storage_state=state)
            page = context.new_page()
            watch(page, demo["url"], problems)
            if state is None:
                page.goto(demo[role])
                axe(page, "door", problems)
                page.click("button")
                page.goto(demo["url"] + PAGES["session"])  # a page that verifies the log
                state = context.storage_state()
            looks(context, page, demo["url"], scheme, directory, problems)
            if scheme == "light":
                page.goto(demo["url"] + PAGES["exam"])
                pdf = page.pdf(format="A4")
                pages = pdf.count(b"/Type /Page\n")
                assert pages >= 10, f"the printed pack has {pages} pages"
                print(f"print: {pages} pages, {len(pdf)} bytes")
            context.close()
        narrow(browser, state, demo["url"], problems)
        admin = browser.new_page()
        admin.goto(demo["admin"])
        admin.click("button")
        axe(admin, "people", problems)
        browser.close()
    print(f"axe: {len(PAGES)} pages in light and dark, the door and people")
    for problem in problems:
        print("problem:", problem)
    assert not problems, f"{len(problems)} problems"
    print("ok")


main()
