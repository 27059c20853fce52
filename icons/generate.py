#!/usr/bin/env python3
"""Draws every icon of the product from one llama's head: `python3 icons/generate.py`.

Needs `rsvg-convert` (Debian: librsvg2-bin) and Pillow. The PNGs are committed, so building needs neither.
"""
import io
import pathlib
import subprocess

from PIL import Image

HERE = pathlib.Path(__file__).parent
TEMPLATE = (HERE / "tray.svg").read_text()

# A head in profile facing right: two upright ears, rounded skull, muzzle, neck with a flat base. 22 x 22 units.
LLAMA = (
    "M5 20 V10.4 C5 9.4 5.4 8.5 6 7.9 V3.5 A1.5 1.5 0 0 1 9 3.5 V7 H10.5 V3.5 A1.5 1.5 0 0 1 13.5 3.5 V7.1 "
    "C15.2 7.4 16.6 8.6 17 10.1 C18.2 10.3 19 11.2 19 12.2 C19 13.3 18.2 14 17 14 H12.6 C11.6 14 11 14.6 11 15.6 V20 Z"
)
BODY = {"dark-panel": "#FFFFFF", "light-panel": "#2B2C2A"}
GAP = '<circle cx="17" cy="17" r="{r}" fill="#000"/>'
SIZES = (16, 22, 24, 32, 44, 48)
FRAMES = 8


def ring(step):
    """Three quarters of a ring, turned by one of eight steps."""
    return (
        f'<g transform="rotate({step * 360 / FRAMES} 17 17)"><path d="M17 13.4 A3.6 3.6 0 1 1 13.4 17" fill="none" '
        'stroke="#8E5BD0" stroke-width="1.9" stroke-linecap="round"/></g>'
    )


DISC = '<circle cx="17" cy="17" r="4.5" fill="{fill}"/>'
EMBLEMS = {
    "idle": "",
    "ready": DISC.format(fill="#2E9E54"),
    "loading": ring(0),
    "busy": DISC.format(fill="#17907B") + '<path d="M15.6 14.6 L19.6 17 L15.6 19.4 Z" fill="#fff"/>',
    "warning": '<path d="M17 12.4 L21.6 17 L17 21.6 L12.4 17 Z" fill="#E0A100" stroke="#3A2A00" stroke-width="0.9" '
    'stroke-linejoin="round"/><path d="M17 14.6 V17.4 M17 18.9 V19" stroke="#2B1F00" stroke-width="1.5" stroke-linecap="round"/>',
    "error": '<path d="M17 12.9 L21.3 20.7 H12.7 Z" fill="#D93A2B" stroke="#D93A2B" stroke-width="1" stroke-linejoin="round"/>'
    '<path d="M17 15.4 V17.7 M17 19.5 V19.6" stroke="#fff" stroke-width="1.5" stroke-linecap="round"/>',
    "paused": '<rect x="14" y="13.2" width="2.3" height="7.6" rx="0.6" fill="{body}"/>'
    '<rect x="17.9" y="13.2" width="2.3" height="7.6" rx="0.6" fill="{body}"/>',
}


def tray(body, emblem, paused=False):
    gap = GAP.format(r=6) if emblem else ""
    return (
        TEMPLATE.replace("{LLAMA}", LLAMA)
        .replace("{GAP}", gap)
        .replace("{BODY}", body)
        .replace("{OPACITY}", "0.55" if paused else "1")
        .replace("{EMBLEM}", emblem.replace("{body}", body))
    )


APP = f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64">
  <rect x="2" y="2" width="60" height="60" rx="14" fill="#0B6B5C"/>
  <path d="M2 46 H62 V48 A14 14 0 0 1 48 62 H16 A14 14 0 0 1 2 48 Z" fill="#095A4E"/>
  <g transform="translate(5.2 4.6) scale(2.35)">
    <path fill="#FAFAF7" d="{LLAMA.replace('V20 Z', 'V24.4 H5 Z').replace('M5 20', 'M5 24.4')}"/>
    <circle cx="12.5" cy="9.9" r="1.1" fill="#0B6B5C"/>
    <path d="M7 4.1 V7.2 M11.9 4.1 V7" stroke="#9BD8CB" stroke-width="0.9" stroke-linecap="round"/>
  </g>
</svg>
"""


def render(svg, size):
    done = subprocess.run(["rsvg-convert", "-w", str(size), "-h", str(size)], input=svg.encode(), capture_output=True, check=True)
    return Image.open(io.BytesIO(done.stdout)).convert("RGBA")


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, optimize=True)


def main():
    (HERE / "app.svg").write_text(APP)
    for size in (32, 64, 128, 256, 512):
        save(render(APP, size), HERE / "app" / f"{size}.png")
    big = render(APP, 512)
    big.save(HERE / "app" / "icon.ico", sizes=[(16, 16), (32, 32), (48, 48), (64, 64), (256, 256)])
    big.save(HERE / "app" / "icon.icns")
    for panel, body in BODY.items():
        for state, emblem in EMBLEMS.items():
            for size in SIZES:
                save(render(tray(body, emblem, state == "paused"), size), HERE / "tray" / panel / f"{state}-{size}.png")
        for step in range(1, FRAMES):
            save(render(tray(body, ring(step)), 44), HERE / "tray" / panel / f"loading-{step}-44.png")
    sheet()


def sheet():
    """One picture of all states on several panels, for people to look at."""
    panels = [("dark-panel", "#1F1F1F"), ("dark-panel", "#000000"), ("light-panel", "#F3F3F3"), ("light-panel", "#FFFFFF")]
    sizes = (22, 24, 32, 48)
    width = sum(s + 16 for s in sizes)
    picture = Image.new("RGB", (width * len(panels), 64 * len(EMBLEMS)), "#808080")
    for column, (panel, colour) in enumerate(panels):
        picture.paste(Image.new("RGB", (width, picture.height), colour), (column * width, 0))
        for row, state in enumerate(EMBLEMS):
            x = column * width + 8
            for size in sizes:
                icon = Image.open(HERE / "tray" / panel / f"{state}-{size}.png")
                picture.paste(icon, (x, row * 64 + (64 - size) // 2), icon)
                x += size + 16
    picture.save(HERE / "sheet.png", optimize=True)


if __name__ == "__main__":
    main()
